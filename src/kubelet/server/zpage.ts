import { zAnswer, type ZPage } from "../../api/z-page.ts";
import { HttpRefusal } from "./http-refusal.ts";
import type { Exchange } from "./route.ts";

/**
 * Answers with the form of a page that the Accept header asks for.
 *
 * @throws {HttpRefusal} 406
 */
export async function serveZPage({ request, response }: Exchange, page: ZPage): Promise<void> {
  const { status, headers, body } = await zAnswer(request.headers.accept ?? "", "kubelet", page);
  if (status !== 200) throw new HttpRefusal(status, body);
  response.writeHead(status, headers);
  response.end(body);
}
