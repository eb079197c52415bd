import de.bwaldvogel.mongo.MongoServer;
import de.bwaldvogel.mongo.ServerVersion;
import de.bwaldvogel.mongo.backend.memory.MemoryBackend;

/** Serves on 127.0.0.1 at the port given, with its data in memory, until it is killed. */
class MongoServerLauncher {
    /** What MongoDB 4.4 says, the oldest that pymongo takes; the library itself says one less, and speaks enough. */
    private static final int WIRE_VERSION = 9;

    public static void main(String[] arguments) throws Exception {
        var field = ServerVersion.class.getDeclaredField("wireVersion");
        field.setAccessible(true);
        field.setInt(ServerVersion.MONGO_5_0, WIRE_VERSION);
        new MongoServer(new MemoryBackend().version(ServerVersion.MONGO_5_0))
            .bind("127.0.0.1", Integer.parseInt(arguments[0]));
    }
}
