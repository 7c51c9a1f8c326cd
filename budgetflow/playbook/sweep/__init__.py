"""playbook/sweep."""
