"""Builds what is installed on a node: the Debian package, the one file, the image.

Beside the program and its tests, for none of it is needed to run or to test rsttrace itself.
"""
