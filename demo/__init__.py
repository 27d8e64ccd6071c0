"""`make demo`: a real model, a real dataset, the whole service, in minutes."""
