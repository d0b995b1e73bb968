"""Rooms, messages, and the conversation that runs over WebSockets."""
