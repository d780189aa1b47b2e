"""From run folders to tables, figures and claims: the same in every suite. It reads files alone."""
