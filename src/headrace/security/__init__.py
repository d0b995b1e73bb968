"""What protects an application from other people's pages."""
