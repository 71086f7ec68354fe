"""The query service: `app.create_app` over run folders; FastAPI, no network of its own."""
