"""The network written anew with the channels that stay, and the plan that records it."""
