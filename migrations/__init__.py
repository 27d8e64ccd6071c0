"""The history of the store's schema. `luthier db upgrade` replays it; `python -m migrations MESSAGE` adds to it."""
