import jupyter from "@jupyter/eslint-plugin";
import tseslint from "typescript-eslint";

export default tseslint.config(
  { ignores: ["lib", "node_modules", ".yarn", "**/*.mjs", "vitest.config.ts"] },
  { plugins: { jupyter } },
  ...jupyter.configs.recommended.map((part) =>
    part.files.includes("**/*.ts") ? { ...part, files: ["src/lab/**/*.ts"] } : part
  ),
  {
    files: ["src/**/*.ts", "src/**/*.tsx", "tests/**/*.ts", "tests/**/*.tsx"],
    extends: [...tseslint.configs.strictTypeChecked, ...tseslint.configs.stylisticTypeChecked],
    languageOptions: { parserOptions: { project: "./tsconfig.test.json", tsconfigRootDir: import.meta.dirname } },
    linterOptions: { reportUnusedDisableDirectives: "error" },
    rules: {
      "no-console": "error",
      "no-restricted-properties": [
        "error",
        { property: "innerHTML", message: "Text of members is text: use textContent." },
        { property: "outerHTML", message: "Text of members is text: use textContent." },
        { property: "insertAdjacentHTML", message: "Text of members is text: use textContent." }
      ],
      "no-restricted-syntax": [
        "error",
        {
          selector: "JSXAttribute[name.name='dangerouslySetInnerHTML']",
          message: "Text of members is text: put it between the tags."
        }
      ],
      "@typescript-eslint/array-type": ["error", { default: "array-simple" }],
      "@typescript-eslint/no-confusing-void-expression": ["error", { ignoreArrowShorthand: true }],
      // Lumino's signals take a method and, beside it, the object.
      "@typescript-eslint/unbound-method": "off",
      "@typescript-eslint/restrict-template-expressions": ["error", { allowNumber: true }]
    }
  },
  {
    // Small, and needed at once; the panel, which isn't, is loaded when it is first shown.
    files: ["src/lab/index.ts"],
    rules: { "jupyter/prefer-lazy-imports": "off" }
  },
  {
    // Fakes stand in for a part of what they are fakes of.
    files: ["tests/**"],
    rules: {
      "no-restricted-properties": "off",
      "@typescript-eslint/no-empty-function": "off",
      "@typescript-eslint/no-extraneous-class": "off",
      "@typescript-eslint/no-non-null-assertion": "off",
      "@typescript-eslint/require-await": "off"
    }
  }
);
