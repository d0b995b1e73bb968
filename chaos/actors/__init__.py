"""The programs that take part: each is a process, is told what to do, and keeps a journal."""
