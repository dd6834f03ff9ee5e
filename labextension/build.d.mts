/** What the tests use of build.mjs. */
export function bundle(options: { write: false; minify?: boolean }): Promise<Array<{ outputFiles: Array<{ path: string; text: string }> }>>;
