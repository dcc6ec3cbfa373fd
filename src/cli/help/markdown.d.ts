/** Types of the pages of the manual, which are imported as text. */
declare module "*.md" {
  const text: string;
  export default text;
}
