//! What a node needs to score a window, and nothing else.
