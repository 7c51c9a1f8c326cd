"""playbook/forecasts."""
