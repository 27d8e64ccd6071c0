"""What users get: jobs without pins, on tasks of every kind, against other searches of the same cost."""
