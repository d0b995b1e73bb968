"""Every parser under whatever bytes there are, guided by what they reach."""
