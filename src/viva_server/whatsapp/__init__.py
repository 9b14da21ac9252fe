"""WhatsApp through Evolution API: what it delivers, what is answered, what is sent."""
