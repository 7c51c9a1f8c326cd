"""playbook/comparison."""
