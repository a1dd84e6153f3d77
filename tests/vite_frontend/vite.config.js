import { defineConfig } from "vite";

const target = process.env.AG_UI_URL;

export default defineConfig({
  server: {
    proxy: {
      // The paths of the backend.
      "^/(admin|agent|api|auth|console|docs|events|health|openapi\\.json|redoc)(/|\\?|$)": {
        target,
        changeOrigin: true,
        // As from a page of the backend itself, which may use cookies.
        headers: { origin: target },
      },
    },
  },
});
