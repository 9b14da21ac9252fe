"""WhatsApp through Evolution API: its events and the inbox."""
