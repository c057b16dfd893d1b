"""The scripts in `turnpool/lua`, each on a real server through its typed function."""
