import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;

/** A runtime in Java, with the JDK's own HTTP client. */
public final class Main {
    public static void main(String[] args) throws Exception {
        String api = "http://" + System.getenv("AWS_LAMBDA_RUNTIME_API") + "/2018-06-01/runtime/invocation/";
        HttpClient client = HttpClient.newHttpClient();
        while (true) {
            HttpResponse<String> event = client.send(HttpRequest.newBuilder(URI.create(api + "next")).build(),
                HttpResponse.BodyHandlers.ofString());
            String id = event.headers().firstValue("Lambda-Runtime-Aws-Request-Id").orElseThrow();
            String answer = "{\"event\":" + event.body() + ",\"java\":\"" + Runtime.version().feature()
                + "\",\"maxMemory\":" + Runtime.getRuntime().maxMemory() + "}";
            client.send(HttpRequest.newBuilder(URI.create(api + id + "/response"))
                .POST(HttpRequest.BodyPublishers.ofString(answer)).build(), HttpResponse.BodyHandlers.discarding());
        }
    }
}
