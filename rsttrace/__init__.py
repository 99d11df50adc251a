"""rsttrace: who resets your TCP connections?"""

__version__ = "0.1.0"
