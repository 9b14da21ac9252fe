"""Evolution API's REST side: sending, catching up, its settings."""
