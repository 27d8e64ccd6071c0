"""Answers to whoever chats with a model: host.py is the agent's side, process.py a process of its own that holds it."""
