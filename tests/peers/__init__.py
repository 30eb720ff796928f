"""Against witnesses and a log that others wrote; `make peers` installs them."""
