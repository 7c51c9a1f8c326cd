"""playbook/rounds."""
