"""Ray, and nothing but Ray: it is imported nowhere else. Actors build a plain object and forward calls to it."""
