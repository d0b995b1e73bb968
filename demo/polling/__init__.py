"""One feed, told in four ways, and what each of them costs."""
