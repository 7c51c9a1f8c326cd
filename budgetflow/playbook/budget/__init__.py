"""playbook/budget."""
