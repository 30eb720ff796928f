"""What this project measures, against peers and limits, in one run: `python -m bench`. See bench/README.md."""
