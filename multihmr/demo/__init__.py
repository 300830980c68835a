"""The web demo: app, server, sessions, videos."""
