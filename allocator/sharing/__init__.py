"""What published rules share: signals, shares of bytes, and their exact rounding to levels."""
