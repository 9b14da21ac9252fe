"""Replies: live ones and their readers, the journal, ownership, the use cases."""
