/** Types of the Python module, which is imported as text. */
declare module "*.py" {
  const text: string;
  export default text;
}
