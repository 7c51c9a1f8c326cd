"""playbook/common."""
