"""What is installed on a node: built, installed in fresh trees of Debian, and used there."""
