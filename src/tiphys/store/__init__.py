"""The revisioned log: interface, SQLite, memory. Keys are strings, values are bytes; an answered commit is durable."""
