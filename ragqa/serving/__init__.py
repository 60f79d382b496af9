"""The HTTP service and its page: ``ragqa serve``; needs ``pip install 'ragqa[serve]'``."""
