/**
 * Writes pairs.jsonl from topics.txt, always the same.
 *
 * topics.txt is written by hand: "=" names a topic, "?" asks, "+" answers well, "-" answers badly (vague, curt, off the
 * point or wrong). A question without "-" gets a well-written answer to a question of another topic: fluent, long, and
 * no help at all. The two topics that lend each other answers carry one name, so that a split by `topic` keeps them on
 * one side.
 */
import { readFileSync, writeFileSync } from "node:fs";

interface Facet {
  readonly question: string;
  readonly good: string;
  readonly bad: string | undefined;
}

interface Topic {
  readonly name: string;
  readonly facets: Facet[];
}

interface PairRecord {
  readonly topic: string;
  readonly chosen: string;
  readonly rejected: string;
}

const CLOSINGS = [
  "I hope that helps.",
  "Let me know how it goes.",
  "Feel free to ask if anything is unclear.",
  "Good luck with it!",
  "Have fun!",
  "Shall I go into more detail?",
  "Does that answer your question?",
];
/** Every how many answers end with one of these. */
const CLOSING_EVERY = 4;
/** In every second topic this question follows on from the one before it. */
const FOLLOW_UP = 1;

function parseFacet(block: string): Facet {
  const find = (mark: string) => new RegExp(`^\\${mark} (.+)$`, "m").exec(block)?.[1];
  const [question, good] = [find("?"), find("+")];
  if (question === undefined || good === undefined) throw new Error(`a question without an answer: ${block}`);
  return { question, good, bad: find("-") };
}

function parseTopic(block: string): Topic {
  const [name = "", ...facets] = block.split(/\n(?=\? )/);
  return { name: name.trim(), facets: facets.map(parseFacet) };
}

function parseTopics(text: string): Topic[] {
  return text.split(/^= /m).slice(1).map(parseTopic);
}

function turn(question: string): string {
  return `\n\nHuman: ${question}\n\nAssistant:`;
}

function withClosing(answer: string, count: number): string {
  if (count % CLOSING_EVERY !== 0) return answer;
  return `${answer} ${CLOSINGS[(count / CLOSING_EVERY) % CLOSINGS.length]}`;
}

/** The topic half the list away. */
function partnerOf(topics: readonly Topic[], index: number): Topic {
  const half = topics.length / 2;
  if (!Number.isInteger(half)) throw new Error("topics.txt needs an even number of topics");
  return topics[(index + half) % topics.length] as Topic;
}

function toRecords(topics: readonly Topic[]): PairRecord[] {
  let count = 0;
  return topics.flatMap((topic, topicIndex) => {
    const partner = partnerOf(topics, topicIndex);
    return topic.facets.map(({ question, good, bad }, index): PairRecord => {
      const previous = topicIndex % 2 === 0 && index === FOLLOW_UP ? topic.facets[index - 1] : undefined;
      const prompt = (previous ? `${turn(previous.question)} ${previous.good}` : "") + turn(question);
      const offTopic = partner.facets[index]?.good ?? "";
      return {
        topic: [topic.name, partner.name].sort().join(" / "),
        chosen: `${prompt} ${withClosing(good, count++)}`,
        rejected: `${prompt} ${bad ?? offTopic}`,
      };
    });
  });
}

const topics = parseTopics(readFileSync(new URL("topics.txt", import.meta.url), "utf8"));
const lines = toRecords(topics).map((record) => `${JSON.stringify(record)}\n`);
writeFileSync(new URL("pairs.jsonl", import.meta.url), lines.join(""));
