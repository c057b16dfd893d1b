"""What `turnpool up` needs on a machine with nothing installed: a Valkey and a small model."""
