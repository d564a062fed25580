"""Tools for asyncio. They know nothing about Redis."""
