/** Ready-made questions, for a first try. */

/** @type {{name: string, labels: string[], examples: {text: string, label: string}[], template: string, text: string}[]} */
export const SAMPLES = [
  {
    name: "mood",
    labels: ["happy", "sad"],
    examples: [
      { text: "We laughed and danced until the sun came up.", label: "happy" },
      { text: "He wept when he read her last letter.", label: "sad" },
    ],
    template: "Text: {text}\nMood: {label}",
    text: "The children ran out into the snow, singing.",
  },
  {
    name: "subject",
    labels: ["animals", "weather", "food"],
    examples: [],
    template: "Text: {text}\nSubject: {label}",
    text: "The dog chased the cat and the horse.",
  },
];
