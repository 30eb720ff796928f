"""`nextcloud-audit demo`: the whole promise on one machine, then every attack that it is meant to withstand."""
