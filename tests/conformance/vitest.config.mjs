// A test of the suite waits for timers of seconds: what vitest allows by itself is too short.
export default {
  test: {
    include: ["*.test.mjs"],
    testTimeout: 30_000,
    hookTimeout: 30_000,
    teardownTimeout: 5_000,
  },
}
