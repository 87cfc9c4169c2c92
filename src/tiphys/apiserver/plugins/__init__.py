"""Built-in admission plugins, one a file. Their order is in apiserver/assembly.py."""
