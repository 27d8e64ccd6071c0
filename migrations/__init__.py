"""The migrations of the store's schema. `luthier db upgrade` applies them; `python -m migrations MESSAGE` adds one."""
