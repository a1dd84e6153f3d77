"""The tasks of the roles, run on folders that play hosts. It takes as long as the rest of the fast tests together."""
