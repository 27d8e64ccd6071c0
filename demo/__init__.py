"""`make demo`: fine-tune a real model on a real dataset with the whole service, in minutes."""
