"""What people say of executions, and the datasets made of it."""
