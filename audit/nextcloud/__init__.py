"""Nextcloud as a source: what is read from it (`values`), how (`client`), and what is concluded (`look`)."""
