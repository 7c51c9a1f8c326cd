"""playbook/derived."""
